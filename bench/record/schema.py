"""What names a run, as against what was measured in it: that is declared by the instruments."""

IDENTITY = (
    "run_id experiment method net dataset seed protocol budget status reason epochs batch_size device env_id".split()
)
WORDS = frozenset("run_id experiment method net dataset protocol budget status reason device env_id".split())

# what the rows of a run's own tables are known by
KEY = "run_id method net dataset seed variant".split()

CURVE = "epoch step train_loss val_acc val_acc_noise_free train_s data_s eval_s".split()

# the fields of a spec that tell which code made the numbers
SOURCES = ("method_source", "net_source", "numerics")

# the form of records, in their spec.json: raise it by one when older ones must be brought up to date (rows.migrated)
SCHEMA = 1

# the fields of a spec that set no two rows of one method, net and data set apart
UNVARIED = frozenset(
    "run_id method net dataset seed data_id eval_draws probe_only method_settings net_settings tuned instruments "
    "epochs steps seconds flops patience schema".split()  # the budget is told in words
)
