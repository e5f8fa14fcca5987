"""A network learns what signals look like: MNIST-1D, half of each hidden.

MNIST-1D (Greydanus and Kobak 2024, "Scaling down deep learning with MNIST-1D";
github.com/greydanus/mnist1d) has 4,000 signals of 40 numbers to train on and
1,000 to evaluate on, each a digit's shape, moved, scaled and with noise. Here
they are read as ten patches of four numbers; five of them are hidden and
predicted, as SimMIM (Xie et al. 2022) does with images. The data does not come
with the program: make mnist1d.npz with the arrays x, y, x_test and y_test.

  bert-jax pretrain mnist1d data.train=mnist1d.npz --workdir runs/signals

The page mnist1d_task fine-tunes the network, and says what was measured.
"""

from bert_jax.data.arrays import ArraysData
from bert_jax.experiment import Experiment
from bert_jax.model.bert import BertConfig
from bert_jax.model.inputs import ValuesInputs
from bert_jax.objectives.reconstruction import Reconstruction
from bert_jax.training.optimizers import AdamW
from bert_jax.training.schedules import LinearSchedule

experiment = Experiment(
    model=BertConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.05, inputs=ValuesInputs(width=4)),
    objective=Reconstruction(rate=0.5),
    data=ArraysData(
        length=11, train="mnist1d.npz", evaluation_values="x_test",
        evaluation_labels="y_test", patch=(4,)),
    optimizer=AdamW(),
    schedule=LinearSchedule(learning_rate=1e-3, warmup_fraction=0.1),
    steps=3000,
    batch_size=128,
    evaluate_every=1000,
    save_every=3000,
    log_every=100,
)
