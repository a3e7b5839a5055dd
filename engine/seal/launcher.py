"""python -I -S launcher.py --request FD -- COMMAND...: take on the seal that FD asks for, and become COMMAND.

The standard library alone, and nothing of anybody's site-packages: nothing runs before the seal that could get around
it. The request comes by a descriptor, since arguments are seen by everybody. What the launcher is lies in modules,
since those are compiled once and a program each time.
Status 125: a required layer is missing, and nothing was started. 127: COMMAND could not be started.
"""

import os
import sys

# Last, so that nothing beside this package can stand in for a module of the standard library.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from engine.seal.layers.launch import launch

if __name__ == "__main__":
    launch(sys.argv[1:])
