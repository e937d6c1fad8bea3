"""`python -m proxy` is the command `nixfront`."""

from proxy.cli import main

raise SystemExit(main())
