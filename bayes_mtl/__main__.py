"""`python -m bayes_mtl` is `bayes-mtl`."""

import sys

from bayes_mtl.cli import main

sys.exit(main())
