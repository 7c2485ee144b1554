"""Defines every config field with its default. Config files assign the fields they change."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the base config, unlocked."""
    config = ConfigDict()

    # Name of the run, set from the config file's path: "coarse/cnn4" for configs/coarse/cnn4.py.
    config.experiment = ""
    # Seed of all randomness except the validation split.
    config.seed = 0

    config.model = ConfigDict()
    # Network: a key of cifar_jax.models.MODELS. The other fields of `model` are the network's
    # options, which have the network's defaults unless a config sets them. If another network is
    # chosen on the command line, only options that differ from the default of the config's network
    # are kept.
    config.model.name = "cnn3"

    config.data = ConfigDict()
    # "cifar10", "cifar100", or "synthetic", which is embedded and needs no download.
    config.data.name = "cifar100"
    # "fine", or "coarse": the 20 superclasses of CIFAR-100.
    config.data.label = "fine"
    # Folder of TFDS data sets, or the one to which the official binary archive was unpacked; empty
    # for $TFDS_DATA_DIR or ~/tensorflow_datasets.
    config.data.dir = ""
    # Fraction of the training images held out for validation, in [0, 1). With 0, curves show the
    # test set instead.
    config.data.val_fraction = 0.0
    # Seed of the validation split, as in scikit-learn's train_test_split.
    config.data.val_seed = 42
    # Number of images of each split to use, from the start, for quick trials. 0 for all.
    config.data.limit = 0

    # Images per step over all devices.
    config.batch_size = 128
    # Epochs of training; an epoch is ceil(images / batch_size) steps.
    config.num_epochs = 10
    # Whether to drop an epoch's incomplete last batch; an epoch is then floor(images / batch_size)
    # steps.
    config.drop_last = False
    # Epochs between evaluations. The last epoch, or the one at which a callback ends training, is
    # always evaluated.
    config.eval_every_epochs = 1
    # Images per evaluation step over all devices.
    config.eval_batch_size = 500
    # The epoch that the run reports: "last", or the best on the validation split ("val"), the
    # training images ("train") or the test set ("test": biased, but some write-ups did so).
    config.selected_on = "last"
    # Metric that determines the best epoch: "accuracy", "top5_accuracy" or "loss".
    config.selected_by = "accuracy"

    config.optim = ConfigDict()
    # "sgd", "adam", "adamw" or "muon": a key of cifar_jax.optim.OPTIMIZERS.
    config.optim.name = "adam"
    # Peak learning rate.
    config.optim.learning_rate = 1e-3
    # Schedule, such as "constant", "step" or "cosine": a key of cifar_jax.optim.SCHEDULES. Comments
    # below name the schedules and optimizers that use a field.
    config.optim.schedule = "constant"
    # Epochs of linear warm-up from 0 to the schedule's first learning rate.
    config.optim.warmup_epochs = 0.0
    # "one_cycle", "linear_one_cycle": learning rate at the start. "triangular", "triangular2",
    # "exp_range": learning rate at the start of each cycle.
    config.optim.base_learning_rate = 0.0
    # "polynomial", "cosine", "one_cycle", "linear_one_cycle": learning rate at the end of training.
    config.optim.final_learning_rate = 0.0
    # "step": epochs at which the learning rate is multiplied by step_factor.
    config.optim.step_epochs = ()
    # "step": factor at each of step_epochs. "exponential": factor per epoch; usually above 0.1.
    config.optim.step_factor = 0.1
    # "inverse_time": d in learning_rate / (1 + d * step), the `decay` of Keras's optimizers.
    config.optim.decay = 0.0
    # "polynomial": exponent, 1 for a straight line.
    config.optim.power = 1.0
    # "one_cycle", "linear_one_cycle": fraction of training, in (0, 1), in which the learning rate
    # rises.
    config.optim.rise = 0.3
    # "triangular", "triangular2", "exp_range": duration in epochs of the rise, and of the fall, in
    # a cycle.
    config.optim.half_cycle_epochs = 0.0
    # "exp_range": factor of the cycle's amplitude at every step, in (0, 1].
    config.optim.cycle_factor = 1.0
    # sgd, muon: momentum, 0 for none.
    config.optim.momentum = 0.0
    # sgd, muon: whether to use Nesterov momentum.
    config.optim.nesterov = False
    # adam, adamw: decay rate of the first moment.
    config.optim.beta1 = 0.9
    # adam, adamw: decay rate of the second moment.
    config.optim.beta2 = 0.999
    # adam, adamw: added to the square root of the second moment. PyTorch uses 1e-8; Keras 1e-7,
    # and 1e-8 before version 2.1.3.
    config.optim.eps = 1e-8
    # Weight decay: this multiple of the weights is added to the gradient (sgd, adam) or to the
    # update (adamw, muon).
    config.optim.weight_decay = 0.0
    # Weights that decay: "all", or "kernels" to exclude biases and normalization parameters.
    config.optim.weight_decay_mask = "all"
    # Max global norm of the gradients; 0 for no clipping.
    config.optim.clip_norm = 0.0
    # Sharpness-aware minimization: Euclidean distance between the weights and the point at which a
    # second pass over each batch takes the gradient. 0 for none; 0.05 and 0.15 are common. The
    # distance includes parameters whose group no longer trains.
    config.optim.sam_rho = 0.0
    # Groups of parameters with fields of their own, one "PATTERN: FIELD=VALUE, FIELD=VALUE" per
    # line or separated by ";", as in "*/bias: learning_rate=0.1, weight_decay=0; head/*:
    # name='adam'". PATTERN is a glob over paths such as "layers/0/kernel", and the first line that
    # matches applies. FIELD is a field of `optim` except clip_norm, or num_epochs: the group then
    # trains only in the first num_epochs epochs, and its schedule ends with them. If a line sets
    # learning_rate but not base_learning_rate or final_learning_rate, the latter are scaled by the
    # same factor.
    config.optim.groups = ""
    # Whether the kernels that muon trains are rescaled to Frobenius norm sqrt(output features)
    # before each update, even if their group no longer trains. Suits kernels that are followed by
    # BatchNorm.
    config.optim.rescale_kernels = False
    # muon: dtype of the Newton-Schulz iterations, "float32" or "bfloat16"; "auto" for the dtype of
    # the network's computation (config.dtype).
    config.optim.newton_schulz_dtype = "auto"

    # Exponential moving average of the weights and running statistics, which is evaluated instead
    # of them.
    config.ema = ConfigDict()
    # Decay per step, in (0, 1); 0 for no average.
    config.ema.decay = 0.0

    # Lookahead: every few steps, an average of the weights and running statistics moves towards
    # them, and training continues from the average. Evaluation uses the average.
    config.lookahead = ConfigDict()
    # Steps between two moves of the average; 0 for no lookahead.
    config.lookahead.every = 0
    # Final decay of the average per step, in (0, 1).
    config.lookahead.decay = 0.95
    # Exponent, at least 0: after t of T steps, a move keeps the fraction
    # decay^every * (t / T)^power of the average; the rest comes from the latest values.
    config.lookahead.power = 3.0

    # Keras's ReduceLROnPlateau: reduces the learning rate when a metric stops improving.
    config.plateau = ConfigDict()
    # Evaluations without improvement before a reduction; 0 disables the callback.
    config.plateau.patience = 0
    # "loss", "accuracy" or "top5_accuracy" on the validation split (or on the test set, if there is
    # no such split), or on the training images: "train_loss" and so on.
    config.plateau.monitor = "loss"
    # Factor of the learning rate, in (0, 1).
    config.plateau.factor = 0.1
    # Length of the cooldown after a reduction, in evaluations. As in Keras, only the first
    # cooldown - 1 of them are excluded from the patience, so 1 is the same as 0.
    config.plateau.cooldown = 0
    # Min change of the metric that counts as an improvement.
    config.plateau.min_delta = 1e-4
    # Lower bound of the learning rate.
    config.plateau.min_learning_rate = 0.0

    # Keras's EarlyStopping: ends training when a metric stops improving. selected_on and
    # selected_by determine the epoch that is then reported.
    config.early_stopping = ConfigDict()
    # Evaluations without improvement before training ends; 0 disables the callback.
    config.early_stopping.patience = 0
    # The metric to monitor; it takes the same values as plateau.monitor.
    config.early_stopping.monitor = "loss"
    # Min change of the metric that counts as an improvement.
    config.early_stopping.min_delta = 0.0

    # Fraction of the target that is spread uniformly over all classes, in [0, 1).
    config.label_smoothing = 0.0

    config.augment = ConfigDict()
    # Operations on training images, in order, as in "flip|crop(4)": see cifar_jax.augment.OPS.
    # Empty for none.
    config.augment.ops = ""
    # "mixup(0.2)" or "cutmix(1.0)": mixes pairs of augmented images, and their losses. Empty for
    # no mixing.
    config.augment.mix = ""
    # Scaling of pixels: "unit" to [0, 1], "standard" by the training images' mean and std,
    # "symmetric" to [-1, 1], "raw" keeps [0, 255], "caffe" for BGR minus (103.939, 116.779,
    # 123.68), "imagenet" by ImageNet's mean and std. Weights from ImageNet need "caffe" (VGGs and
    # ResNets of Keras), "symmetric" (Xception) or "imagenet" (VGGs and ResNets of torchvision and
    # timm).
    config.augment.normalize = "standard"
    # Height and width in pixels to which images are resized after augmentation, also in evaluation,
    # from 8 to 1,024. 0 keeps 32.
    config.augment.resize = 0
    # "bilinear" or "bicubic".
    config.augment.resize_method = "bilinear"
    # Progressive resizing: sizes of the training images in pixels, such as (20, 24, 32), instead of
    # augment.resize. Empty for one size.
    config.augment.train_sizes = ()
    # Numbers of epochs after which the size changes to the next one, such as (2, 5).
    config.augment.train_size_epochs = ()
    # Views of each image whose logits are averaged in evaluation: 1, 2 (with its mirror image) or 6
    # (these, and both shifted by a pixel in two directions).
    config.augment.views = 1

    # Transfer learning: training that starts from the weights of a trained network.
    config.transfer = ConfigDict()
    # Where the weights come from: a file (.h5 or .safetensors), the workdir of a run, "keras", or
    # "hf:OWNER/REPO[@REVISION]" on huggingface.co. Empty for random initialization.
    config.transfer.weights = ""
    # What trains: "all", or "head", which keeps the layers before the head as they were loaded.
    config.transfer.train = "all"
    # Epoch at which each group of layers starts to train, from the head down; the last one applies
    # to all remaining groups. (0, 5) trains only the head for 5 epochs. Empty trains all groups
    # from the start.
    config.transfer.unfreeze_epochs = ()
    # Ratio of the learning rate of each group of layers to that of the next group towards the head,
    # in (0, 1].
    config.transfer.layer_decay = 1.0
    # Whether the BatchNorm layers before the head normalize with the running statistics that were
    # loaded, and do not update them. With train "head", this is always so.
    config.transfer.freeze_batch_norm = False
    # With train "head", and one view of images that are neither augmented nor mixed: whether to
    # compute the features of every image once and keep them on the device. Affects only the speed.
    config.transfer.cache_features = True

    # Steps per compiled call: 1 for a single step without a loop, 0 for automatic (about a second
    # of work). Affects only the speed.
    config.steps_per_call = 0
    # On NVIDIA GPUs: "on" runs the steps of a call as one CUDA graph, without the host; "off" lets
    # the host launch every step; "auto" tries once per device whether that works and is not
    # slower. Results are unaffected.
    config.gpu_graph = "auto"
    # How to use all local devices: "jit" (one global batch) or "pmap" (BatchNorm statistics per
    # replica, so that the number of devices is part of the recipe).
    config.parallel = "jit"
    # Dtype of the computation: "float32", "bfloat16", or "auto": bfloat16 on GPU and TPU, otherwise
    # float32. Parameters, statistics, logits and loss are always float32. On recent NVIDIA GPUs
    # "float32" multiplies in TF32, JAX's default there.
    config.dtype = "float32"

    # Experiment trackers in addition to CSV and TensorBoard: "mlflow", "wandb" or "mlflow, wandb".
    # Empty for none; see cifar_jax/run/trackers.py.
    config.trackers = ""

    config.checkpoint = ConfigDict()
    # Epochs between checkpoints. The last epoch and, unless selected_on is "last", the best one are
    # always saved. If an epoch takes less time than a save, training does not wait: of the
    # checkpoints that become due during the save, only the newest and the best are written.
    config.checkpoint.every_epochs = 1
    # Minutes after which a checkpoint is saved within an epoch.
    config.checkpoint.every_minutes = 10.0

    # The hyperparameter search, `python -m cifar_jax.search`. Training ignores these fields.
    config.search = ConfigDict()
    # Fields to search over, one "FIELD in SET" per line or separated by ";". SET is {A, B, ...},
    # uniform(LOW, HIGH), log(LOW, HIGH) or int(LOW, HIGH), both ends included; FIELD[i] is an entry
    # of a list. For example "model.filters[0] in {16, 32}; optim.learning_rate in log(1e-4, 0.1)".
    config.search.space = ""
    # Number of trials, those of all workers and earlier sessions together.
    config.search.num_trials = 20
    # "random", or "tpe": Optuna's tree-structured Parzen estimator.
    config.search.sampler = "tpe"
    # Rule that ends a trial early: "none", "median" (worse than the median of the earlier trials at
    # the same epoch) or "hyperband".
    config.search.pruner = "median"
    # Epochs before a trial can be pruned.
    config.search.min_epochs = 3
    # If data.val_fraction is 0: fraction of the training images that the trials hold out, in [0,
    # 1). That split takes the place of the test set: selected_on "test" means "val" in a trial.
    config.search.val_fraction = 0.0

    return config
