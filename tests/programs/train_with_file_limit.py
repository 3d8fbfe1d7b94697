"""Train under a limit on the size of a file, which stands for a disk that is full.

python train_with_file_limit.py <bytes> <flags of train.py>
"""

import resource
import sys

import train

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(train.main(sys.argv[2:]))
