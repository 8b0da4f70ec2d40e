"""``python -m moorline.cli`` for where no script is installed."""

from moorline.cli import main

main()
