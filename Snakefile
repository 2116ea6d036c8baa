# The pipeline as a picture: one rule per notebook, each executed by papermill.
#
#   00 micro_world -> 01 collect -> 02 simulator -> 03 train (per arm and seed) -> 04 evaluate -> 05 cost
#          |               |                            ^
#          +---------------+- other arms: real engine, -+        (do not wait for the tuning)
#                             simulator base
#
# Called by `python -m zerosearch.cli` inside outputs/<run>/ with that run's settings.json as its
# configuration.  A stage is finished when its manifest.json exists; checkpoints, caches and ledgers are
# declared by no rule, so that Snakemake never deletes them.  Parameters of a stage, the code cells of its
# notebook, the weights of shipped models that it names and a layout that changes numbers stand under `params:`:
# a change runs that stage and what depends on it again.  Limits of money and pace, and replaying, are none of them.

import json


def parameters(stage):
    deciding = {name: value for name, value in config["stages"][stage].items() if name not in config["free_parameters"]}
    layout = config.get("deciding_layout", {}).get(stage)
    return json.dumps([deciding, config["code"][stage], config["models"][stage]] + ([layout] if layout else []), sort_keys=True)


def before_training(wildcards):
    """All read the questions; only an arm that searches the tuned simulator waits for the tuning."""
    own = rules.simulator if config["retrievers"][wildcards.arm] == "simulator" else rules.collect
    return [rules.micro_world.output[0], own.output[0]]


def run(stage, arguments=""):
    runner = "{config[python]:q} -m zerosearch.notebook_runner"
    return f"{runner} --settings settings.json --stage {stage} {arguments}"


rule all:
    input: "05_cost/manifest.json"


rule micro_world:
    output: "00_micro_world/manifest.json"
    params: parameters("00")
    threads: 1
    shell: run("00")


rule collect:
    input: rules.micro_world.output
    output: "01_collect/manifest.json"
    params: parameters("01")
    threads: 1
    shell: run("01")


rule simulator:
    priority: 1  # an arm waits for it: the other arms fill the second core meanwhile
    input: rules.micro_world.output, rules.collect.output
    output: "02_simulator/manifest.json"
    params: parameters("02")
    threads: 1
    shell: run("02")


rule train:
    input: before_training
    output: "03_rl/{arm}/seed{seed}/manifest.json"
    params: parameters("03")
    threads: 1
    shell: run("03", "--arm {wildcards.arm:q} --seed {wildcards.seed}")


rule evaluate:
    input: rules.micro_world.output, expand(rules.train.output, arm=config["arms"], seed=config["seeds"])
    output: "04_evaluate/manifest.json"
    params: parameters("04")
    threads: 1
    shell: run("04")


rule cost:
    input: rules.evaluate.output
    output: "05_cost/manifest.json"
    params: parameters("05")
    threads: 1
    shell: run("05")
