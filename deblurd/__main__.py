"""``python -m deblurd``."""

import sys

from deblurd.cli import main

sys.exit(main())
