# ruff: noqa: E402  (stdout is taken over before the peer is imported)
"""RecBole's GRU4Rec under the clock; run by the Python of the peers' environment, which has no zsrbook.

Usage: ``python peer_recbole.py FOLDER THREADS``, where FOLDER holds ``bench/bench.inter`` and ``bench/bench.item``. After
``ready`` on stdout, each line on stdin asks for that many steps of training and is answered by ``samples seconds``.
"""

import itertools
import os
import sys
import time

folder, threads = sys.argv[1], int(sys.argv[2])
sys.argv = sys.argv[:1]  # RecBole reads the command line for itself
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what RecBole prints goes to stderr

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

settings = {
    "data_path": folder,
    "use_gpu": False,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
    "train_neg_sample_args": None,
    "loss_type": "CE",
    "embedding_size": 64,
    "hidden_size": 128,
    "MAX_ITEM_LIST_LENGTH": 50,
    "train_batch_size": 2048,
    "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    "show_progress": False,
    "checkpoint_dir": folder,
}
config = Config(model="GRU4Rec", dataset="bench", config_dict=settings)
init_seed(0, True)
torch.set_num_threads(threads)
data = data_preparation(config, create_dataset(config))[0]
model = get_model("GRU4Rec")(config, data._dataset)
trainer = get_trainer(config["MODEL_TYPE"], "GRU4Rec")(config, model)

print("ready", file=answers, flush=True)
for line in sys.stdin:
    samples = 0

    def steps(n=int(line)):
        global samples
        for batch in itertools.islice(data, n):
            samples += len(batch)
            yield batch

    began = time.perf_counter()
    trainer._train_epoch(steps(), 0)
    print(samples, time.perf_counter() - began, file=answers, flush=True)
