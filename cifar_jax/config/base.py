"""Every field that a config has, with its default. Config files assign what they change."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the base config, not locked."""
    config = ConfigDict()

    # The run's name; set from the config file's path: configs/coarse/cnn4.py is "coarse/cnn4".
    config.experiment = ""
    # Seed of everything random but the validation split.
    config.seed = 0

    config.model = ConfigDict()
    # Network: a key of cifar_jax.models.MODELS. Further fields here are the network's options,
    # its defaults where a config does not set them.
    config.model.name = "cnn3"

    config.data = ConfigDict()
    # "cifar10", "cifar100", or "synthetic": embedded, no download.
    config.data.name = "cifar100"
    # "fine", or "coarse": the 20 superclasses of CIFAR-100.
    config.data.label = "fine"
    # Folder of TFDS data sets; empty for $TFDS_DATA_DIR or ~/tensorflow_datasets.
    config.data.dir = ""
    # Part of the training images held back for validation, in [0, 1). With 0 the test set takes
    # its place in the curves.
    config.data.val_fraction = 0.0
    # Seed of the validation split, as in scikit-learn's train_test_split.
    config.data.val_seed = 42
    # Greatest number of images of each split, the first ones; 0 for all. For trying things out.
    config.data.limit = 0

    # Images per step, all devices together.
    config.batch_size = 128
    # Epochs of training; an epoch is ceil(images / batch_size) steps.
    config.num_epochs = 10
    # Epochs from one evaluation to the next; the last epoch is always evaluated, and the one at
    # which a callback ends the training.
    config.eval_every_epochs = 1
    # Images per step of evaluation, all devices together.
    config.eval_batch_size = 500
    # Which epoch the run reports: "last", "val" (the best on the validation split), "train" (on the
    # training images) or "test" (on the test set: biased, for write-ups that did so).
    config.selected_on = "last"
    # By which metric that is the best: "accuracy", "top5_accuracy" or "loss".
    config.selected_by = "accuracy"

    config.optim = ConfigDict()
    # "sgd", "adam" or "adamw".
    config.optim.name = "adam"
    # Peak learning rate.
    config.optim.learning_rate = 1e-3
    # "constant", "step", "exponential", "inverse_time", "polynomial", "cosine", "one_cycle",
    # "triangular", "triangular2" or "exp_range": see cifar_jax/optim/schedules.py.
    config.optim.schedule = "constant"
    # Epochs of linear warm-up from 0 to where the schedule begins.
    config.optim.warmup_epochs = 0.0
    # "one_cycle": rate at the start. "triangular", "triangular2", "exp_range": rate at the start of
    # each cycle.
    config.optim.base_learning_rate = 0.0
    # "polynomial", "cosine", "one_cycle": rate at the end of training.
    config.optim.final_learning_rate = 0.0
    # "step": epochs at which the rate is multiplied by step_factor.
    config.optim.step_epochs = ()
    # "step": factor at each. "exponential": factor at every epoch, where 0.1 is seldom meant.
    config.optim.step_factor = 0.1
    # "inverse_time": d in rate / (1 + d * step), the `decay` of Keras' optimisers.
    config.optim.decay = 0.0
    # "polynomial": exponent, 1 for a straight line.
    config.optim.power = 1.0
    # "one_cycle": share of training in which the rate rises, in (0, 1).
    config.optim.rise = 0.3
    # "triangular", "triangular2", "exp_range": epochs in which the rate rises, and then falls.
    config.optim.half_cycle_epochs = 0.0
    # "exp_range": factor of the cycle's height at every step, in (0, 1].
    config.optim.cycle_factor = 1.0
    # sgd: momentum, 0 for none.
    config.optim.momentum = 0.0
    # sgd: Nesterov's form.
    config.optim.nesterov = False
    # adam, adamw: decay of the first moment.
    config.optim.beta1 = 0.9
    # adam, adamw: decay of the second moment.
    config.optim.beta2 = 0.999
    # adam, adamw: added to the root of the second moment. PyTorch has 1e-8; Keras 1e-7, before
    # version 2.1.3 1e-8.
    config.optim.eps = 1e-8
    # Factor of the weights in the gradient (sgd, adam) or in the update (adamw).
    config.optim.weight_decay = 0.0
    # Which weights decay: "all", or "kernels" to leave out biases and normalisation.
    config.optim.weight_decay_mask = "all"
    # Greatest global norm of the gradients; 0 for no clipping.
    config.optim.clip_norm = 0.0

    # Keras' ReduceLROnPlateau: multiplies the rate where a metric no longer improves.
    config.plateau = ConfigDict()
    # Evaluations without improvement; 0 for no such callback.
    config.plateau.patience = 0
    # "loss", "accuracy" or "top5_accuracy" on the validation split (the test set without one), or
    # on the training images: "train_loss" and so on.
    config.plateau.monitor = "loss"
    # Factor of the rate, in (0, 1).
    config.plateau.factor = 0.1
    # Evaluations behind a cut that do not count.
    config.plateau.cooldown = 0
    # What an improvement has to exceed.
    config.plateau.min_delta = 1e-4
    # The rate is cut no further.
    config.plateau.min_learning_rate = 0.0

    # Keras' EarlyStopping: ends training where a metric no longer improves. selected_on and
    # selected_by say which epoch is reported then.
    config.early_stopping = ConfigDict()
    # As plateau.patience.
    config.early_stopping.patience = 0
    # As plateau.monitor.
    config.early_stopping.monitor = "loss"
    # What an improvement has to exceed.
    config.early_stopping.min_delta = 0.0

    # Share of the target that is spread evenly over all classes, in [0, 1).
    config.label_smoothing = 0.0

    config.augment = ConfigDict()
    # Operations on training images, in order, as in "flip|crop(4)": see cifar_jax.augment.OPS.
    # Empty for none.
    config.augment.ops = ""
    # "mixup(0.2)" or "cutmix(1.0)": mixes pairs of augmented images, and their losses. Empty for
    # none.
    config.augment.mix = ""
    # Scaling of pixels: "unit" to [0, 1], "standard" by the training images' mean and deviation,
    # "symmetric" to [-1, 1], "raw" leaves [0, 255].
    config.augment.normalize = "standard"

    # Steps per compiled call: 1 for a plain step without a loop around it, 0 for automatic (about a
    # second of work). Changes nothing but the speed.
    config.steps_per_call = 0
    # On NVIDIA GPUs: "on" runs the steps of a call as one CUDA graph, without the host; "off" lets
    # the host launch every step. Results are unaffected.
    config.gpu_graph = "on"
    # All local devices by "jit" (one global batch) or "pmap" (BatchNorm per replica: there the
    # number of devices is part of the recipe).
    config.parallel = "jit"
    # Of the computation: "float32", "bfloat16", or "auto": bfloat16 on GPU and TPU, else float32.
    # Parameters, statistics, logits and loss are float32 always. On recent NVIDIA GPUs "float32"
    # multiplies in TF32, as is jax's default there.
    config.dtype = "float32"

    # Experiment trackers besides CSV and TensorBoard: "mlflow", "wandb", or both with a comma; see
    # cifar_jax/run/trackers.py. Empty for none.
    config.trackers = ""

    config.checkpoint = ConfigDict()
    # Epochs from one checkpoint to the next; the last epoch and, where selected_on is not "last",
    # the best one are always saved.
    config.checkpoint.every_epochs = 1
    # Minutes after which a checkpoint is saved within an epoch.
    config.checkpoint.every_minutes = 10.0

    return config
