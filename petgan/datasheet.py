"""What a reader must know of a synthetic dataset, as one page and as JSON.

The sections are those of Gebru et al., Datasheets for Datasets (2021). Nothing in it names a patient, a
path or a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from petgan.runs import EVALUATION_SCHEMA

SCHEMA_VERSION = 1

_OF_A_SCORE = (
    "name", "protocol", "value", "standard_error", "better", "ruler", "n_real", "n_fake", "floor", "blind_to"
)  # fmt: skip
_OF_THE_ORIGIN = (
    "run_id", "checkpoint_step", "checkpoint_digest", "dataset_digest", "noise_seed", "code_version",
    "code_digest",
)  # fmt: skip

_USES = [
    "research on methods: to try out software, to teach, to enlarge or stand in for training sets",
    "where images of patients would do as well and may be used, compare with them",
]
_NOT_FOR = [
    "diagnosis, or any decision about a person: no image shows a patient",
    "measurement: grey values of a generator have no unit, though its training images may have had one",
    "statements on how often a finding occurs: a generator has frequencies of its own",
]
_ANONYMITY = (
    "Passing the checks means that no image of a patient was found in it, which is less than a proof of "
    "anonymity: data about a person remain so under the GDPR (recital 26, art. 4(5)) as long as somebody "
    "could tell whose they are. Who gives the dataset to others decides that, knowing whose images were "
    "trained on."
)
_LIMITS = (
    "The error rate is that of the permutation test, which holds if patients were held out at random. How "
    "often the search for copies is wrong about an honest image is bounded only by its false alarms among "
    "held-out ones. It compares images of 32 x 32 pixels, and finds no copy that was turned, nor a part "
    "of an image. The test finds memory of many patients, and may miss that of a few."
)
_DRAWN = (
    "drawn from the averaged generator of a generative adversarial network, at random and without selection"
)
_SHOWN = (
    "made by the averaged generator of a generative adversarial network, one of each image that it was "
    "shown, in their order and without selection"
)
_OF_PATIENTS = (
    "Each image was made of an image of a patient, and may tell whose: that it is no copy of it by the rule "
    "above does not rule that out."
)
_ALLOWED = "Copies were allowed when it was made: it must be kept as the patient data that it was trained on."


def datasheet(
    lineage: Mapping[str, Any], image_size: int, meaning: Mapping[str, str], evaluation: Any
) -> dict[str, Any]:
    """Make the datasheet of a synthetic dataset.

    Parameters
    ----------
    lineage : mapping
        Of the dataset, as `petgan.synthesize` writes it.
    image_size : int
        Pixels along a side.
    meaning : mapping
        ``modality``, ``units`` and ``window`` of the training images.
    evaluation : mapping or None
        The run's ``evaluation.json``, if there is one.

    Returns
    -------
    dict
        What JSON can hold.
    """
    scores, why_none = _scores(evaluation, lineage["checkpoint_digest"])
    inputs = lineage.get("inputs")
    return {
        "schema_version": SCHEMA_VERSION,
        "motivation": {
            "purpose": "Images that resemble those of a medical dataset and are no patient's.",
            "created_by": f"petgan {lineage['code_version']}",
        },
        "composition": {
            "instances": "synthetic images, grey, square, uint8; "
            + ("one of each image that was shown" if inputs else "each is independent of the others"),
            "count": lineage["count"],
            "image_size_pixels": image_size,
            "resembles": dict(meaning),
            "labels": "none; all are in the split 'train', and each has an invented patient of its own",
            "digest": lineage.get("output_digest"),
            "errors_and_redundancies": "images that no patient could have; see the scores",
        },
        "collection_process": {
            "mechanism": _SHOWN if inputs else _DRAWN,
            **{name: lineage[name] for name in _OF_THE_ORIGIN},
            "inputs": inputs and {name: inputs[name] for name in ("dataset_digest", "synthetic")},
            "started_from": [
                {name: start[name] for name in ("checkpoint_digest", "dataset_digest")}
                for start in lineage["started_from"]
            ],
        },
        "preprocessing": "None after the generator; its output in [-1, 1] became grey levels 0 to 255.",
        "quality": {"scores": scores, "note": why_none, "gates": lineage["gates"]},
        "privacy": {
            "copies_allowed": lineage["copies_allowed"],
            "copy_check": lineage["copy_check"],
            "copy_check_of_the_inputs": inputs and inputs["copy_check"],
            "copy_checks_of_the_start": [start["copy_check"] for start in lineage["started_from"]],
            "limits": [
                *([_ALLOWED] if lineage["copies_allowed"] else []),
                *([_OF_PATIENTS] if inputs and not inputs["synthetic"] else []),
                _LIMITS,
                _ANONYMITY,
            ],
        },
        "uses": {"intended": _USES, "not_intended": _NOT_FOR},
        "distribution": "The terms of the training images may bind their derivatives: ask who gave them.",
        "maintenance": "None: the checkpoint, the noise seed and the code named above give the same images "
        "again.",
    }


def markdown(sheet: Mapping[str, Any]) -> str:
    """A datasheet as a Markdown page."""
    return "\n".join(_page(sheet)) + "\n"


def _scores(evaluation: Any, checkpoint_digest: str) -> tuple[list[dict[str, Any]], str | None]:
    """The scores of this checkpoint, and why there are none."""
    if evaluation is None or evaluation.get("schema_version") != EVALUATION_SCHEMA:
        return [], "The run was not evaluated, so nothing is known of how good the images are."
    if evaluation["checkpoint"]["digest"] != checkpoint_digest:
        return [], "Another checkpoint of the run was evaluated, so nothing is known of how good these are."
    # Another protocol scores the images of another generator, against images that were trained on, too.
    ours = [score for score in evaluation["scores"] if score["protocol"] == "petgan"]
    if not ours:
        return [], "The run was evaluated by another protocol only, which says nothing of these images."
    return [{name: score.get(name) for name in _OF_A_SCORE} for score in ours], None


# --- the page -----------------------------------------------------------------------------------


def _page(sheet: Mapping[str, Any]) -> Iterator[str]:
    content, origin, privacy = sheet["composition"], sheet["collection_process"], sheet["privacy"]
    yield "# Datasheet of a synthetic dataset"
    yield "Not for diagnosis. After Gebru et al., Datasheets for Datasets (2021)."
    yield from ("", "## Motivation", sheet["motivation"]["purpose"])
    yield f"Made by {sheet['motivation']['created_by']}."
    yield from ("", "## Composition")
    yield f"- {content['count']} {content['instances']}"
    yield f"- {content['image_size_pixels']} x {content['image_size_pixels']} pixels"
    yield "- meant to resemble: " + ", ".join(f"{k} {v}" for k, v in content["resembles"].items())
    yield f"- labels: {content['labels']}"
    yield f"- errors: {content['errors_and_redundancies']}"
    yield f"- digest: {_known(content['digest'])}"
    yield from ("", "## Collection process", f"The images were {origin['mechanism']}.", "")
    yield from _table(("what", "value"), [(n.replace("_", " "), origin[n]) for n in _OF_THE_ORIGIN])
    if origin["inputs"]:
        kind = "synthetic images" if origin["inputs"]["synthetic"] else "images of patients"
        yield ""
        yield f"It was shown {kind}, of dataset {origin['inputs']['dataset_digest']}."
    for start in origin["started_from"]:
        yield ""
        yield (
            f"Its training started from checkpoint {start['checkpoint_digest']}, which was trained on "
            f"dataset {_known(start['dataset_digest'])}."
        )
    yield from ("", "## Preprocessing", sheet["preprocessing"])
    yield from ("", "## Quality", *_quality(sheet["quality"]))
    yield from ("", "## Privacy", *_privacy(privacy["copy_check"], "training images"))
    if privacy["copy_check_of_the_inputs"]:
        yield from ("", "### Inputs", _inputs(privacy["copy_check_of_the_inputs"]))
    for number, check in enumerate(privacy["copy_checks_of_the_start"], 1):
        yield from ("", f"### Start {number}", *_privacy(check, "training images of the start"))
    for limit in privacy["limits"]:
        yield from ("", limit)
    yield from ("", "## Uses", "For:", *(f"- {use}" for use in sheet["uses"]["intended"]))
    yield from ("", "Not for:", *(f"- {use}" for use in sheet["uses"]["not_intended"]))
    yield from ("", "## Distribution", sheet["distribution"])
    yield from ("", "## Maintenance", sheet["maintenance"])


def _quality(quality: Mapping[str, Any]) -> Iterator[str]:
    if quality["note"]:
        yield quality["note"]
    else:
        yield "Scores of the run's images against real ones that were not trained on. The floor is what real"
        yield "images come to: below it nothing can be told from chance."
        yield ""
        heads = (
            "score",
            "value",
            "floor",
            "better",
            "real",
            "generated",
            "does not see",
            "protocol",
            "ruler",
        )
        yield from _table(heads, [_row(score) for score in quality["scores"]])
    yield ""
    if quality["gates"] is None:
        yield "The images were not checked: the training images were not at hand."
    else:
        yield from [f"Failed: {gate['words']}." for gate in quality["gates"]] or ["No check failed."]


def _row(score: Mapping[str, Any]) -> tuple[str, ...]:
    error, floor, blind = score["standard_error"], score["floor"], score["blind_to"]
    unseen = "not checked" if blind is None else ", ".join(blind) or "nothing it was tried on"
    return (
        score["name"],
        f"{score['value']:.4g}" + ("" if error is None else f" ± {error:.2g}"),
        "none" if floor is None else f"{floor['value']:.4g}",
        score["better"],
        str(score["n_real"]),
        str(score["n_fake"]),
        unseen,
        score["protocol"],
        score["ruler"],
    )


def _inputs(check: Mapping[str, Any]) -> str:
    if not check["checked"]:
        return f"The images were not compared with those that were shown: {check['reason']}."
    return (
        f"{check['copies']} copies of the images that were shown: a copy is nearer than {check['threshold']} "
        f"of the patients' distance, and the nearest image is at {check['smallest_ratio']:.2f}."
    )


def _privacy(check: Mapping[str, Any], what: str) -> Iterator[str]:
    if not check["checked"]:
        yield f"The images were not compared with {what}: {check['reason']}."
        return
    yield (
        f"Compared with {check['training_images']} {what}, of {check['training_patients']} patients, and "
        f"{check['held_out_images']} images of {check['held_out_patients']} others:"
    )
    yield ""
    alarms, test = check["false_alarms"], check["memorisation"]
    rows = [
        ("copies", check["copies"], f"a copy is nearer than {check['threshold']} of the patients' distance"),
        ("nearest image", f"{check['smallest_ratio']:.2f}", "of the patients' distance"),
        ("median image", f"{check['median_ratio']:.2f}", "of the patients' distance"),
        ("false alarms", _known(alarms), _alarms_in_words(check)),
        ("authenticity", _number(check["authenticity"]), "share that is no nearer than patients are"),
        ("the same of held-out images", _number(check["held_out_authenticity"]), "to compare with"),
        ("nearer to training images", _number(check["nearer_train_share"]), "0.50 knows nothing"),
        ("membership AUC", _number(check["membership_auc"]), "0.50 knows nothing, 1 all"),
    ]
    yield from _table(("what", "value", "meaning"), rows)
    yield from ("", f"Permutation test over patients: {test['words']}.")


def _alarms_in_words(check: Mapping[str, Any]) -> str:
    told = "held-out real images that this rule takes for copies"
    if check["false_alarm_bound"] is None:
        return told
    return f"{told}; with 95 % confidence fewer than {check['false_alarm_bound']:.1%} of such images"


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    for row in (heads, ("---",) * len(heads), *rows):
        yield "| " + " | ".join(_known(cell).replace("|", "\\|") for cell in row) + " |"


def _known(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
