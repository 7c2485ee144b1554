import pytest

optuna = pytest.importorskip("optuna")

from cifar_jax.study import sampler, space  # noqa: E402

SPACE = space.parse("optim.eps in log(1e-4, 1); seed in int(0, 99); batch_size in {1, 2, 4, 8}")


def draw(study, trial):
    return {p.name: p.suggest(trial) for p in SPACE}


def make_study(name="random", seed=0):
    optuna.logging.disable_default_handler()
    return optuna.create_study(sampler=sampler.create(name, seed), direction="maximize")


def test_random_draws_do_not_depend_on_the_worker_or_the_order():
    alone, first = make_study(), make_study()
    expected = [draw(alone, alone.ask()) for _ in range(6)]
    assert len({str(values) for values in expected}) == 6
    asked = [first.ask() for _ in range(6)]
    assert [draw(first, trial) for trial in asked[::-1]][::-1] == expected
    other = make_study(seed=1)
    assert draw(other, other.ask()) != expected[0]


def test_a_trial_that_was_left_between_its_draws_gets_the_same_values():
    expected = draw(make_study(), make_study().ask())
    study = make_study()
    trial = study.ask()
    SPACE[0].suggest(trial)
    study.sampler = sampler.create("random", 0)  # that of another worker
    assert draw(study, optuna.trial.Trial(study, trial._trial_id)) == expected


def test_tpe_learns_and_is_a_function_of_the_finished_trials():
    def run():
        study = make_study("tpe")
        drawn = []
        for _ in range(40):
            trial = study.ask()
            drawn.append(draw(study, trial))
            study.tell(trial, -abs(drawn[-1]["seed"] - 70))
        return drawn

    drawn = run()
    assert drawn == run()

    def mean(values):
        return sum(abs(v["seed"] - 70) for v in values) / len(values)

    assert mean(drawn[-15:]) < 0.5 * mean(drawn[:10])
