"""What names a run, as against what was measured in it: that is declared by the instruments."""

IDENTITY = (
    "run_id experiment method net dataset seed protocol budget status reason epochs batch_size device env_id".split()
)
WORDS = frozenset("run_id experiment method net dataset protocol budget status reason device env_id".split())

# parts into which each batch was cut after whole ones had run out of memory (bench run --on-oom shrink); empty: none.
# A run's identity is what is asked, and the update is the same, so a cut run has the identity of a whole one, and takes
# its place in the plan. But not in tables: memory and time are those of parts, and sums round otherwise. So it always
# stands in the row's variant, which parts tables, figures and `bench compare`, and merged records must agree in it.
CUT = "oom_micro_batches"

# what a run has learnt (bench run --keep-weights), and the field of its summary that holds the file's SHA-256
WEIGHTS, WEIGHTS_SHA256 = "weights.safetensors", "weights_sha256"

# in summary.json and in frames of runs: the key of the metric that a run is judged by, and that of records without it
PRIMARY = "primary_metric"
FIRST_METRIC = "acc"

# what the rows of a run's own tables are known by
KEY = "run_id method net dataset seed variant".split()

# older records lack the last column
CURVE = "epoch step train_loss val_acc val_acc_noise_free train_s data_s eval_s train_flops".split()

# what stands before the name of a metric of the rule's own (train_step) in a column of the curve, behind the others
RULE = "rule_"

# the fields of a spec that tell which code made the numbers
SOURCES = ("method_source", "net_source", "numerics")

# the fields of a spec that are no settings of a run, or that stand among its settings by their names
NOT_SETTINGS = frozenset(
    "run_id method net dataset seed data_id probe_only method_settings net_settings tuned instruments metrics "
    "schema".split()  # of the metrics the primary one is told by its key
)

# the fields of a spec in which a run and its twin under backprop agree, beside data, net and seed
CONDITIONS = tuple(
    "batch_size val_fraction threads precision channels_last compile device epochs steps seconds flops patience "
    "net_source numerics objective transforms transformed_by data_on".split()
)

# the form of records, in their spec.json: raise it by one when older ones must be brought up to date (rows.migrated)
SCHEMA = 1

# the fields of a spec that set no two rows of one method, net and data set apart
UNVARIED = frozenset(
    "run_id method net dataset seed data_id eval_draws probe_only method_settings net_settings tuned instruments "
    "metrics epochs steps seconds flops patience schema".split()  # their budget and primary metric are told otherwise
)
