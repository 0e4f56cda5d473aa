import sys

try:
    from .cli import main

    sys.exit(main())
except KeyboardInterrupt:
    print("fkv: stopped", file=sys.stderr)
    sys.exit(130)
