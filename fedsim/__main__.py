"""``python -m fedsim`` is ``fedsim``."""

from fedsim.cli.commands import main

main()
