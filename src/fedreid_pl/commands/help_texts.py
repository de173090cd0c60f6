"""The texts of the help of each command. The first line of a text is the command's line in the overview."""

from __future__ import annotations

from fedreid_pl.commands import federation, flower, silo

OVERVIEW = """\
fedreid-pl trains person re-identification models federatedly: several clients train one model without sharing pictures.

Usage: fedreid-pl COMMAND [WORD ...] [KEY=VALUE ...]

"""

MORE = """
Help of a command:     fedreid-pl COMMAND --help
All keys of training:  fedreid-pl train --help
A first run:           fedreid-pl train exp=fedpav rounds=2    (generated pictures, no download)
Names of experiments:  fedreid-pl methods
"""

_MODEL = """\
  checkpoint=WHICH  last (default), best, the number of a saved round, or the path of a checkpoint.
  client=NAME       Uses the model of this client. Default: the global model of the server.
  model.name=PATH   package.module:callable of the run's network, if the run used a network of your own.
"""

TEXTS = {
    "train": """\
Trains an experiment and prints its scores. Repeat the command to resume an interrupted run.

Usage: fedreid-pl train [exp=NAME|FILE.yaml] [data=NAME|FILE.yaml] [dry_run=true] [KEY=VALUE ...]

  exp=NAME          Experiment: the method and its settings. `fedreid-pl methods` lists the names. Default: fedpav.
  data=NAME         Data configuration. Default: minireid, a benchmark of generated pictures.
  data.root=FOLDER  Folder that contains one folder per dataset. Each dataset is a client.
  output_dir=FOLDER Folder of the run. Default: runs/DATA/EXP/seedN, with a suffix if you set other keys.
  dry_run=true      Checks the configuration and the data and prints the plan; trains and writes nothing.
  log=json          Prints one JSON object per line to stderr (with engine=silos only).
  KEY=VALUE         Any configuration key below, and callbacks.NAME.OPTION=VALUE, an option of a method.

Examples:
  fedreid-pl train exp=fedpav_rw rounds=30 seed=1
  fedreid-pl train exp=fedprox data=crops data.root=/pictures callbacks.fedprox.mu=0.1
""",
    "evaluate": """\
Evaluates the models of a run again, on its own test sets or on other datasets. Prints tables, writes no files.

Usage: fedreid-pl evaluate run=FOLDER [checkpoint=WHICH] [rerank=true] [KEY=VALUE ...]
       fedreid-pl evaluate run=FOLDER data=NAME data.root=FOLDER [splits=N]

  run=FOLDER        Folder of a run of `fedreid-pl train`.
  checkpoint=WHICH  last (default), best, the number of a saved round, or the path of a checkpoint.
  data=NAME         Other data to evaluate on. Default: the data of the run.
  splits=N          Evaluates on the splits 0 to N-1 of the other data and prints mean and standard deviation.
  rerank=true       Prints the scores after k-reciprocal re-ranking, too.
  KEY=VALUE         Any configuration key; `fedreid-pl train --help` lists them.

Example: fedreid-pl evaluate run=runs/minireid/fedpav/seed0 data=grid data.root=/datasets
""",
    "compare": """\
Trains several experiments over several seeds, and prints tables with means, deviations and tests.

Usage: fedreid-pl compare exps="EXP EXP+KEY=VALUE ..." [seeds="0 1 2"] [jobs=N] [KEY=VALUE ...]

  exps="..."        Experiments, separated by spaces. +KEY=VALUE changes a key of one experiment.
  seeds="0 1 2"     Seeds of every experiment. Default: 0.
  jobs=N            Number of runs that are trained at the same time. Default: 1.
  statistic=WHICH   Score of a run. last (default): the last evaluation; best: the best evaluation; best3: the mean of
                    the three best evaluations.
  baseline=NAME     Experiment that the others are compared with. Default: fedpav, else the first.
  splits=N          Trains every experiment on the splits 0 to N-1 of the data.
  leave_out=each    Trains every experiment once without each dataset, and tests on this dataset. NAME,NAME: these only.
  out=FOLDER        Folder of the tables. Default: runs/DATA/compare.
  KEY=VALUE         Any configuration key, for all runs; `fedreid-pl train --help` lists them.

The command trains missing runs only: finished runs with the same configuration are read.

Example: fedreid-pl compare exps="local fedpav fedprox+callbacks.fedprox.mu=0.1" seeds="0 1 2" rounds=30
""",
    "sweep": """\
Trains an experiment with every combination of values, and chooses the best on validation persons.

Usage: fedreid-pl sweep exp=NAME KEY=V1,V2 [KEY2=V1,V2 ...] data.val_ids=0.1 [seeds=0,1] [KEY=VALUE ...]

  exp=NAME          Experiment to tune.
  KEY=V1,V2         Key with the values to try. Every combination of all such keys is trained.
  data.val_ids=0.1  Share of the training persons that is held out for validation (required).
  seeds=0,1,2       Seeds of every combination. Default: 0.
  jobs=N            Number of runs that are trained at the same time. Default: 1.
  statistic=WHICH   last (default): last round; best: round with the best validation score.
  test=true         Shows the test scores of the combinations, too.
  out=FILE.csv      Saves the scores of all combinations.

Example: fedreid-pl sweep exp=fedpav optim.lr_backbone=0.005,0.01,0.02 data.val_ids=0.1 jobs=2
""",
    "study": """\
Trains a study (groups of experiments in a YAML file) and saves one row per run.

Usage: fedreid-pl study NAME|FILE.yaml [groups=NAME,NAME] [jobs=N] [small=true] [KEY=VALUE ...]

  NAME              Shipped study, such as main (the study of docs/results.md), or the path of a YAML file.
  groups=NAME,NAME  Trains only these groups of the study.
  jobs=N            Number of runs that are trained at the same time. Default: 1.
  small=true        Trains a quick pass with few seeds and rounds.
  results=FILE.csv  File of the rows. Default: results/NAME.csv (main: results/study.csv).
  keep=true         Keeps the run folders. Default: a run folder is deleted after its row is saved.
  dry_run=true      Prints the missing runs; trains nothing.

Example: fedreid-pl study main small=true jobs=2
""",
    "embed": f"""\
Computes the features of all pictures in a folder and saves them to a file.

Usage: fedreid-pl embed RUN FOLDER out=FILE [KEY=VALUE ...]

  RUN               Folder of a run of `fedreid-pl train`.
  FOLDER            Folder of pictures, each of one person.
  out=FILE          File to write. The suffix selects the format: .safetensors, .npz or .parquet.
  flip=true|false   Averages the features of a picture and its mirror image. Default: true.
  batch_size=N      Pictures per step. Default: 64.
  device=DEVICE     cpu (default) or cuda.
{_MODEL}
Example: fedreid-pl embed runs/crops/fedpav/seed0 /pictures out=features.npz
""",
    "search": f"""\
Searches a gallery of pictures for a person, and prints the most similar pictures.

Usage: fedreid-pl search RUN GALLERY QUERY [KEY=VALUE ...]

  RUN               Folder of a run of `fedreid-pl train`.
  GALLERY           Folder of pictures, or a gallery file that save= wrote.
  QUERY             A picture, or a folder of pictures.
  k=N               Number of matches to print. Default: 10.
  page=FILE.html    Writes a page with the pictures of the queries and of their matches.
  save=FILE.db      Saves the gallery to a file, so that later searches need not embed the folder again.
  threshold=VALUE   Cosine similarity from -1 to 1. Below it, the person is reported as absent from the gallery.
                    Default: the calibrated threshold of the run, if it was trained with data.val_ids.
  rerank=true       Sorts by k-reciprocal re-ranking, and prints distances.
  group=person      One match per person. Default: row, one match per picture.
  pooling=mean      With group=person: mean over the person's pictures. Default: best, the best picture.
  camera=NAME       Leaves out the pictures of this camera.
  index=NAME        exact (default); faiss or usearch: an approximate index.
  audit=FILE.jsonl  Appends one line per search to this file.
  device=DEVICE     cpu (default) or cuda.
{_MODEL}
Example: fedreid-pl search runs/crops/fedpav/seed0 /pictures query.jpg k=5 page=found.html
""",
    "export": f"""\
Exports a trained model to a file for other programs (ONNX, TorchScript, torch.export, safetensors).

Usage: fedreid-pl export RUN out=FILE [KEY=VALUE ...]

  RUN               Folder of a run of `fedreid-pl train`.
  out=FILE          File to write. The suffix selects the format: .onnx, .torchscript, .pt2, or .safetensors (weights).
  flip=true|false   The exported network averages the features of a picture and its mirror image. Default: false.
  int8=true         Quantises weights and activations to 8 bits; requires out=NAME.onnx and pictures=FOLDER.
  pictures=FOLDER   Pictures on which the exported features are compared with the model's; with int8=true, the pictures
                    that calibrate the ranges.
{_MODEL}
Example: fedreid-pl export runs/crops/fedpav/seed0 out=people.onnx
""",
    "report": """\
Writes an HTML report of one run, of several runs, or of a comparison.

Usage: fedreid-pl report FOLDER [FOLDER ...] [out=FILE.html]
       fedreid-pl report RUN report.KEY=VALUE [...]

  FOLDER            Folder of a run, or folder that `fedreid-pl compare` wrote.
  out=FILE.html     File to write. Default: report.html in the folder; for several folders, in the current folder.
  report.KEY=VALUE  Evaluates the last models of one run again with this setting, and writes the report. For example,
                    report.images=false removes pictures. `fedreid-pl train --help` lists the keys report.*.

Example: fedreid-pl report runs/minireid/fedpav/seed*
""",
    "figure": """\
Draws figures of runs for a paper, as PNG and PDF files.

Usage: fedreid-pl figure FOLDER [FOLDER ...] [columns=1|2] [out=FOLDER]

  FOLDER            Folder of a run, or folder that `fedreid-pl compare` wrote.
  columns=1|2       Width of the figures in columns of the paper. Default: both.
  out=FOLDER        Folder of the files. Default: figures in the folder; for several folders, in the current folder.

Example: fedreid-pl figure runs/minireid/compare columns=1
""",
    "data": """\
Shows the clients of a data configuration, checks datasets, or shows and clears the image cache.

Usage: fedreid-pl data [data=NAME] [data.root=FOLDER] [KEY=VALUE ...]         print clients with persons and pictures
       fedreid-pl data check [data=NAME] [data.root=FOLDER] [json=FILE]       read and decode all pictures
       fedreid-pl data show [out=FILE.png]                                    draw samples of the generated benchmark
       fedreid-pl data cache [clear] [data.cache_dir=FOLDER]                  show or clear the image cache

  data=NAME         Data configuration; `fedreid-pl train --help` lists the names. Default: minireid.
  data.root=FOLDER  Folder that contains one folder per dataset.

Example: fedreid-pl data data=crops data.root=/pictures
""",
    "data check": """\
Checks that the datasets are complete and readable, before training.

Usage: fedreid-pl data check [data=NAME] [data.root=FOLDER] [json=FILE.json] [KEY=VALUE ...]

  data=NAME         Data configuration; `fedreid-pl train --help` lists the names. Default: minireid.
  data.root=FOLDER  Folder that contains one folder per dataset.
  json=FILE.json    Saves the result as JSON, too.

The command reads all names, decodes every picture, and prints persons, pictures, cameras and overlaps. Exit code 2 if
a run cannot use the datasets.

Example: fedreid-pl data check data=crops data.root=/pictures
""",
    "data cache": """\
Shows the size of the image cache, or clears it.

Usage: fedreid-pl data cache [clear] [data.cache_dir=FOLDER]

  clear                  Deletes the cached files. Later runs create them again.
  data.cache_dir=FOLDER  Folder of the cache. Default: ~/.cache/fedreid_pl, or $FEDREID_PL_CACHE.
""",
    "methods": """\
Lists all methods, or describes one: what it exchanges, what stays at the client, what it needs.

Usage: fedreid-pl methods [NAME] [out=FILE.md]

  NAME              Name of an experiment, such as fedprox. Default: lists all.
  out=FILE.md       Writes the descriptions of all methods as a Markdown page.

Example: fedreid-pl methods fedprox
""",
    "dashboard": """\
Creates a wandb workspace that compares the runs of a project.

Usage: fedreid-pl dashboard run=FOLDER|data=NAME [out=FILE.json] [KEY=VALUE ...]

  run=FOLDER        A run of the project.
  data=NAME         The data configuration of the project, if there is no run yet.
  out=FILE.json     Writes the definition of the workspace to a file; needs no login. Default: saves it at wandb.

Example: fedreid-pl dashboard run=runs/minireid/fedpav/seed0
""",
    "silo": "Takes part in a federation across organisations, as the owner of pictures.\n\n" + silo.HELP,
    "federation": "Coordinates a federation across organisations.\n\n" + federation.HELP,
    "flower": "Writes an app that runs a federation on a Flower SuperLink.\n\n" + flower.HELP,
}
"""Help by command, in the order of the overview."""
