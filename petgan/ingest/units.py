"""The units of a dataset: what each image is multiplied by to be in them.

==========  ==============================================================================================
``suvbw``   SUV by body weight, g/ml; see `petgan.ingest.dicom.suv_factor`
``bqml``    activity concentration, Bq/ml, corrected as for SUV; the rule is its DecayCorrection
``stored``  as the files have it after their own rescaling, whatever that is
``auto``    ``suvbw`` where the images are PET by DICOM, else ``stored``
==========  ==============================================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from petgan.ingest.frame import Frame, Refused
from petgan.ingest.suv import Attributes, Suv, decay_correction, series_suv

UNITS = ("auto", "suvbw", "bqml", "stored")


def in_units(frames: Sequence[Frame], units: str, refused: dict[str, str]) -> list[Frame]:
    """Give each image its scale.

    Parameters
    ----------
    frames : sequence of Frame
    units : str
        One of `UNITS`.
    refused : dict of str to str
        Is told of each file that cannot be in these units, and why.

    Returns
    -------
    list of Frame
        In the same order, with `scale`, `rule` and the units in their headers, and without what led to them.
    """
    series: defaultdict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        series[frame.patient, frame.series].append(frame)
    found: dict[tuple[str, int], Suv] = {}
    for slices in series.values():
        try:
            for frame, suv in zip(slices, _of_series(slices, units), strict=True):
                found[frame.id, frame.index] = suv
        except Refused as error:
            for frame in slices:
                refused[frame.id] = f"{error.reason}; --units stored takes it without SUV"
    return [_scaled(f, found[f.id, f.index], units) for f in frames if f.id not in refused]


def _of_series(slices: Sequence[Frame], units: str) -> list[Suv]:
    told = [frame.header.suv for frame in slices]
    if units == "stored" or (units == "auto" and all(one is None for one in told)):
        return [Suv(1.0, "")] * len(slices)
    known: list[Attributes] = []
    for one in told:
        if one is None:
            raise Refused(f"is no PET by DICOM, so nothing is known of {units}")
        if isinstance(one, str):
            raise Refused(one)
        known.append(one)
    if units == "bqml":
        return [_activity(one) for one in known]
    return series_suv(known)


def _activity(one: Attributes) -> Suv:
    if one.units == "BQML":
        return Suv(1.0, decay_correction(one))
    if one.units == "CNTS" and one.philips_activity:
        return Suv(one.philips_activity, decay_correction(one))
    raise Refused("is not in Bq/ml by Units (0054,1001), and has no Philips activity factor (7053,1009)")


def _scaled(frame: Frame, suv: Suv, units: str) -> Frame:
    header = frame.header
    if header.suv is None and units in ("auto", "stored"):
        units = header.units
    elif units == "auto":
        units = "suvbw"
    return replace(frame, scale=suv.factor, rule=suv.rule, header=replace(header, units=units, suv=None))
