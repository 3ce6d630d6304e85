"""`python -m tasks.data_cli`."""

import sys

from tasks.data_cli import main

sys.exit(main())
