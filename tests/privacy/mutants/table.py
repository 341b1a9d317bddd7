"""Broken copies of the privacy code: each must make a test fail.

The M numbers are those of well-known mistakes: M1 batches that are not Poisson, M2 quantities mixed up, M3 public
values that follow from private counts, M4 weights, M5 drop-outs, M6 fields without noise, M7 composition, M8 records
that are not finite, M9 empty batches, M10 rows that touch, M11 noise used twice, M14 neighbours, M16 the scale of
noise, M23 clipping by something else than a row's norm, M24 parameters left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A file, a text that stands in it once, what replaces it, why that is wrong, and which tests may notice."""

    file: str
    old: str
    new: str
    why: str
    tests: str


ACCOUNT = "tests/privacy/test_accounting.py tests/privacy/test_ledger.py"
SITE = "tests/privacy/test_dpsgd.py"
STACK = "tests/test_cohort.py"
RANDOM = "tests/test_randomness.py tests/privacy/test_dpsgd.py"
ROUNDS = "tests/test_rounds.py"
ADAPTER = "tests/test_adapter.py tests/test_arms.py"
APP = "tests/test_app.py"
DISTRIBUTED = "tests/secure/test_distributed.py"
NOISE_SHARES = "tests/privacy/test_noise_shares.py"
SECURE = "tests/privacy/test_secure_aggregation.py tests/privacy/test_fixed_point.py tests/secure"
_ACCOUNTING, _LEDGER, _OPTIMIZER, _TRAINING, _COHORT, _LAYERS, _CONVOLUTIONS, _RANDOMNESS = (
    f"fedsim/{name}.py"
    for name in (
        *("privacy/accounting", "privacy/ledger", "privacy/optimizer", "training"),
        *("cohort", "layers", "convolutions", "randomness"),
    )
)
_SHARES = "fedsim/privacy/noise_shares.py"
_PROTOCOL, _SITE_SIDE, _SERVER_SIDE = (
    f"fedsim/{name}.py" for name in ("privacy/secure_aggregation", "secure/site", "secure/server")
)
_DRAW = "chosen = choose(work.streams.batches.draw(len(rows)), work.plan.sampling_rate)"
_NOISE = 'Words.of(seed, "noise", scenario.release, arm, site, round_number)'

MUTANTS = (
    # accounting and ledger
    Mutant(_ACCOUNTING, "segment.noise_multiplier] += segment.steps", "segment.noise_multiplier] = segment.steps",
           "M7: equal segments are counted once", ACCOUNT),
    Mutant(_ACCOUNTING, '"replace-one": 2}', '"replace-one": 1}', "M14: replaced rows cost as little as added ones",
           ACCOUNT),
    Mutant(_ACCOUNTING, "delta, neighbours) - target", "delta, neighbours) - 1.1 * target",
           "M2: noise for a larger epsilon than asked", ACCOUNT),
    Mutant(_ACCOUNTING, "segments).get_epsilon(delta)", "segments).get_epsilon(10 * delta)", "M2: a larger delta",
           ACCOUNT),
    Mutant(_ACCOUNTING, "PoissonSampledDpEvent(segment.sampling_rate, noise)",
           "PoissonSampledDpEvent(segment.sampling_rate / 2, noise)", "M2: half the sampling rate", ACCOUNT),
    Mutant(_ACCOUNTING, "s.steps / s.noise_multiplier**2", "s.steps / s.noise_multiplier**2.1",
           "M2: the wrong power of sigma", ACCOUNT),
    Mutant(_LEDGER, "released.noise_multiplier] += released.steps", "released.noise_multiplier] = released.steps",
           "M7: a new round forgets the rounds before", ACCOUNT),
    Mutant(_LEDGER, "epsilon([*spent, replace(one", "epsilon([replace(one", "M7: the budget forgets what was spent",
           f"{ACCOUNT} {ROUNDS}"),
    Mutant(_LEDGER, "Segment(self.sampling_rate, self.noise_multiplier, self.steps)",
           "Segment(self.sampling_rate, self.noise_multiplier, 1)", "M2: rounds in place of steps", ACCOUNT),
    # DP-SGD at one site
    Mutant(_OPTIMIZER, "float(self.noise_multiplier) * float(self.max_grad_norm)", "float(self.noise_multiplier)",
           "M16: sigma read as a standard deviation", SITE),
    Mutant(_OPTIMIZER, "gradient[~finite] = 0.0", "pass", "M8: a record that is not finite spoils the release", SITE),
    Mutant(_OPTIMIZER, "self._draws += 1", "self._draws += int(self.rows > 0)", "M9: empty batches are not accounted",
           SITE),
    Mutant(_OPTIMIZER, "+ std * part.view_as(parameter)", "+ std * part.view_as(parameter) * (parameter.dim() > 1)",
           "M24: biases get no noise", SITE),
    Mutant(_OPTIMIZER, "if {len(gradient) for gradient in gradients} != {self.rows}:", "if False:",
           "M10: a row that a layer meets twice is clipped twice", SITE),
    Mutant(_OPTIMIZER, "        super().clip_and_accumulate()\n",
           "        for p, g in zip(self.params, gradients, strict=True):\n            p.summed_grad = g.sum(0)\n",
           "M23: no clipping", SITE),
    Mutant(_OPTIMIZER, "noise_multiplier=float(self.noise_multiplier),\n            clip",
           "noise_multiplier=2 * float(self.noise_multiplier),\n            clip", "M2: reports twice the noise", SITE),
    Mutant(_OPTIMIZER, "steps=self._draws", "steps=1", "M2: reports one step", SITE),
    # batches and streams
    Mutant(_TRAINING, "private.rows = len(batch)", "private.rows = private.expected_batch_size = max(1, len(batch))",
           "M3: the denominator follows the rows", SITE),
    Mutant(_TRAINING, _DRAW, "words = work.streams.batches.draw(len(rows))\n        "
           "chosen = words.argsort().argsort() < round(work.plan.sampling_rate * len(rows))",
           "M1: shuffled batches of one size", SITE),
    Mutant(_TRAINING, _DRAW, "chosen = choose(work.streams.batches.again().draw(len(rows)), work.plan.sampling_rate)",
           "M1: the same batch in every step", SITE),
    Mutant(_TRAINING, _NOISE, _NOISE.replace(", round_number", ""), "M11: every round has the same noise", SITE),
    Mutant(_TRAINING, _NOISE, _NOISE.replace(" site,", ""), "M11: every site has the same noise", SITE),
    Mutant(_TRAINING, _NOISE, _NOISE.replace(" scenario.release,", ""), "M11: two scenarios share noise", SITE),
    Mutant(_TRAINING, _NOISE, _NOISE.replace(" arm,", ""), "M11: two arms share noise", SITE),
    Mutant(_RANDOMNESS, "math.floor(rate * 2**32)", "math.floor(min(1.0, 1.05 * rate) * 2**32)",
           "M1: rows join more often than is accounted for", RANDOM),
    Mutant(_RANDOMNESS, ".mul_(-2).sqrt_()", ".mul_(-1.96).sqrt_()", "M16: noise 1 % too small", RANDOM),
    Mutant(_RANDOMNESS, "angle[:, : out.shape[1] - pairs].sin_()", "angle[:, : out.shape[1] - pairs].cos_()",
           "M11: every number is used twice", RANDOM),
    Mutant(_RANDOMNESS, "digest_size=size).digest()", "digest_size=4).digest() * (size // 4)",
           "M11: keys of 32 bits", RANDOM),
    # the cohort engine
    Mutant(_COHORT, "todo.noise.multiplier * todo.noise.clip * shares", "todo.noise.multiplier * shares",
           "M16: sigma read as a standard deviation", STACK),
    Mutant(_COHORT, "if spoiled.any():", "if False:", "M8: a record that is not finite spoils the release", STACK),
    Mutant(_COHORT, "(squares.sqrt() + 1e-6)", "(squares + 1e-6)", "M23: the square of the norm clips", STACK),
    Mutant(_COHORT, "            draws += 1", "            draws += batch.rows.total > 0",
           "M9: empty batches are not accounted", STACK),
    Mutant(_COHORT, "Normals([work.streams.noise for work in works]",
           "Normals([works[0].streams.noise for work in works]", "M11: sites draw from one stream", STACK),
    Mutant(_COHORT, "[work.streams.noise for work in works]", "[works[0].streams.noise.again() for _ in works]",
           "M11: all sites have the same noise", STACK),
    Mutant(_COHORT, "gradient.addcmul_(noise, like(deviation, gradient))",
           "gradient.addcmul_(noise, like(deviation, gradient)) if gradient.dim() > 2 else None",
           "M24: biases get no noise", STACK),
    Mutant(_COHORT, "return model.sum_gradients(factor * batch.share)", "return model.sum_gradients(batch.share)",
           "M23: no clipping", STACK),
    Mutant(_COHORT, "found.sum().backward()", "found.mean().backward()", "M23: norms of averaged losses", STACK),
    Mutant(_COHORT, "shares.repeat_interleave(sizes.to(shares.device)), shares.new_zeros(1)",
           "shares.repeat_interleave(sizes.to(shares.device)), shares.new_ones(1)",
           "M10: padding is trained on, and shows the others' batch sizes", STACK),
    Mutant(_COHORT, "yield from choose(np.concatenate(drawn, 1), works[0].plan.sampling_rate)",
           "yield from choose(np.concatenate(drawn, 1), works[0].plan.sampling_rate / 2)",
           "M2: the sampling rate is not the one accounted for", STACK),
    Mutant(_LAYERS, "(inputs.pow(2).sum((1, 2)) + float(bias))", "inputs.pow(2).sum((1, 2))",
           "M24: norms without the bias", STACK),
    Mutant(_LAYERS, "torch.where(same, gradients @ gradients.mT, 0.0).sum((1, 2))", "gradients.pow(2).sum((1, 2))",
           "M10: a word that comes twice is clipped by its parts", STACK),
    Mutant(_LAYERS, "own if name not in found else found[name] + own", "own", "M10: only the last use counts", STACK),
    Mutant(_CONVOLUTIONS, "found[-1] += gradients.sum(2).pow(2).sum(1)", "pass", "M24: norms without the bias", STACK),
    Mutant(_CONVOLUTIONS, "self.of_rows.masked_fill_(like(rows, self.of_rows), 0)", "pass",
           "M8: a kept gradient that is not finite spoils the release", STACK),
    # rounds and aggregation
    Mutant("fedsim/rounds.py", "mechanism, times) <= epsilon", "mechanism, times) <= 1.2 * epsilon",
           "M7: the budget is exceeded by a fifth", ROUNDS),
    Mutant("fedsim/rounds.py", "if budget and not budget.allows(asked):",
           "if budget and number > 1 and not budget.allows(asked):", "M7: the first round is free", ROUNDS),
    Mutant("fedsim/rounds.py", "        self.ledger.charge(site, round_number, did)",
           "        if reply.has_content():\n            self.ledger.charge(site, round_number, did)",
           "M5: a site that fails is not charged", ROUNDS),
    Mutant("fedsim/rounds.py", "            did = to_mechanism(reply.content[MECHANISM])", "            did = planned",
           "M2: what a site says it did is ignored", ROUNDS),
    Mutant("fedsim/adapter.py", "if self.fixed_denominator else sum(received)", "if False else sum(received)",
           "M5: the fewer answer, the more each record counts", ADAPTER),
    Mutant("fedsim/adapter.py", "received = [self.weights[reply.metadata.src_node_id] for reply in replies]",
           "received = [float(reply.content[METRICS][WEIGHT]) for reply in replies]",
           "M4: weights by what sites claim", ADAPTER),
    Mutant("fedsim/arms.py", "fixed_denominator=job.private", "fixed_denominator=False",
           "M5: private runs divide by who answered", ADAPTER),
    # what leaves a site
    Mutant("clients/app.py", "if setting.scenario.private and noise is None:", "if False:",
           "a server that leaves the noise out gets an exact model", APP),
    Mutant("clients/app.py", 'if "noise-multiplier" in config:\n            raise', "if False:\n            raise",
           "M6: metrics leave without noise", APP),
    Mutant("clients/app.py", "_weight(work.plan.expected_batch).copy()", "_weight(len(work.examples)).copy()",
           "M6: the number of rows leaves", APP),
    Mutant("clients/app.py", "    if scenario.privacy.unit == \"record\":\n        check_rows_are_alone",
           "    if False:\n        check_rows_are_alone",
           "M10: a model that mixes rows is trained under privacy", f"{APP} tests/test_training.py"),
    Mutant("fedsim/engines/serial.py", 'private = "noise-multiplier" in context.run_config', "private = False",
           "M6: the text of an error leaves", APP),
    # secure aggregation
    Mutant(_PROTOCOL, "masked = values + _stream(self._own_mask, len(values))", "masked = values + np.uint64(0)",
           "no mask of its own: a site that is said to be gone is laid open", SECURE),
    Mutant(_PROTOCOL, "            masked += _pairwise(", "            masked += 0 * _pairwise(",
           "no masks in pairs: who takes the own mask off sees the vector", SECURE),
    Mutant(_PROTOCOL, '_derive(secret, f"mask {terms.round} {low} {high}")', '_derive(secret, f"mask {low} {high}")',
           "masks that do not depend on the round", SECURE),
    Mutant(_PROTOCOL, "        self._step(3)\n", "", "masks are taken off twice, for two lists of survivors", SECURE),
    Mutant(_PROTOCOL, "        self._step(2)\n", "", "a vector is masked twice", SECURE),
    Mutant(_PROTOCOL, "if len(set(sites)) < self.terms.threshold:", "if not sites:", "sites go on below the threshold",
           SECURE),
    Mutant(_PROTOCOL, "self.sites / 2 < self.threshold", "self.sites / 2 <= self.threshold",
           "half of the sites is a threshold: a server gets both kinds of shares", SECURE),
    Mutant(_PROTOCOL, "or len(keys) > self.terms.sites:", "or False:", "a server invents sites", SECURE),
    Mutant("fedsim/privacy/shamir.py", "for _ in range(threshold - 1)]", "for _ in range(threshold - 2)]",
           "one share fewer gives the secret back", SECURE),
    Mutant("fedsim/privacy/fixed_point.py", "if not (np.abs(values) <= self.range).all():", "if False:",
           "a value that is not finite, or wraps around, is sent", SECURE),
    Mutant(_SITE_SIDE, 'if isinstance(own, ConfigRecord) and number <= int(own["round"]):', "if False:",
           "the same round twice, with other survivors", SECURE),
    Mutant(_SITE_SIDE, ".secrets.done != _TRAINS:", ".secrets.done < _TRAINS:", "a site trains twice",
           SECURE),
    Mutant(_SITE_SIDE, '        context.state[_OWN] = ConfigRecord({"round": party.terms.round})\n', "",
           "secrets outlive their round", SECURE),
    Mutant(_SERVER_SIDE, '        self._enough(len(masked), "sent a vector")\n', "",
           "shares are asked for although too few sent a vector", SECURE),
    Mutant(_SERVER_SIDE, "if weights and self.inner.fixed_denominator else weight", "if False else weight",
           "M5: the fewer answer, the more each record counts", SECURE),
    Mutant("clients/app.py", 'if "secure-aggregation" not in config:', "if False:",
           "a server that leaves the masks out is told the text of errors", SECURE),
    Mutant("clients/app.py", "        if setting.scenario.secure_aggregation.on:\n            raise PermissionError",
           "        if False:\n            raise PermissionError", "M6: a site's metrics leave beside the sum", SECURE),
    Mutant("fedsim/engines/serial.py", ' or "secure-aggregation" in context.run_config', "",
           "M6: the text of an error leaves beside the sum", SECURE),
    Mutant("fedsim/scenario.py", '            sections.add("secure_aggregation")\n', "            pass\n",
           "M11: a run with masks shares noise with one without", SECURE),
    # shares of the noise
    Mutant(_SHARES, "return self.asked - self.drop_outs - self.colluding", "return self.asked - self.colluding",
           "M5: drop-outs take their noise along", NOISE_SHARES),
    Mutant(_SHARES, "return self.asked - self.drop_outs - self.colluding", "return self.asked - self.drop_outs",
           "those who collude know a part of the noise", NOISE_SHARES),
    Mutant(_SHARES, "self.sensitivity / math.sqrt(self.sure)", "self.sensitivity / self.sure",
           "M16: shares whose deviations add up, not their variances", NOISE_SHARES),
    Mutant(_SHARES, "return self.clip + math.sqrt(self.params) * self.grid.resolution / 2", "return self.clip",
           "rounding is left out of the sensitivity", NOISE_SHARES),
    Mutant(_SHARES, "share.deviation * (math", "(math", "M16: sigma read as a standard deviation", NOISE_SHARES),
    Mutant(_SHARES, "    return change * min(1.0, clip / max(float(change.norm()), 1e-300))", "    return change",
           "M23: no clipping", NOISE_SHARES),
    Mutant(_SHARES, "    if not change.isfinite().all():", "    if False:",
           "M8: an update that is not finite spoils the sum", NOISE_SHARES),
    Mutant(_SHARES, "_rounded(weight * clipped(update, share.clip), share)", "weight * clipped(update, share.clip)",
           "an update between the steps shows through the noise", NOISE_SHARES),
    Mutant(_SHARES, " + _rounded(noise, share)", " + noise.numpy()", "noise between the steps", NOISE_SHARES),
    Mutant("fedsim/scenario.py", "            return sites - self.drop_outs\n", "            return sites // 2 + 1\n",
           "M5: more drop-outs than the noise allows for are tolerated", DISTRIBUTED),
    Mutant("fedsim/secure/shares.py", "weight / max(weights.values())", "weight / min(weights.values())",
           "M4: a heavy site counts for more than its clipped update", DISTRIBUTED),
    Mutant("fedsim/arms.py", "return 1.0, most_rounds(scenario, seed, names)", "return 1.0, 1",
           "M7: noise for one round only", DISTRIBUTED),
    Mutant("clients/app.py", 'if scenario.privacy.unit != "distributed":', "if True:", "no share of the noise is added",
           DISTRIBUTED),
    Mutant("clients/app.py", 'str(config["arm"]), site.name, number\n', 'str(config["arm"]), site.name\n',
           "M11: every round has the same shares", DISTRIBUTED),
    Mutant("clients/app.py", 'str(config["arm"]), site.name, number\n', 'str(config["arm"]), number\n',
           "M11: every site has the same share", DISTRIBUTED),
    Mutant("clients/app.py", "    place = scenario.release, str(", "    place = str(",
           "M11: two settings share noise of different sizes", DISTRIBUTED),
    Mutant(_SHARES, "high + _LOW * low)", "high + 0 * low)", "noise that leaves steps out", NOISE_SHARES),
)  # fmt: skip
