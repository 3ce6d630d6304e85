"""`python -m tasks.cache_cli`."""

import sys

from tasks.cache_cli import main

sys.exit(main())
