"""``python -m petgan``."""

from petgan.cli import main

raise SystemExit(main())
