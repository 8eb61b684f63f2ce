"""The group ``lcm``: its table of commands. A new command is one file and one row here."""

from __future__ import annotations

from lexalcm.cli.groups import Command, Group

GROUP = Group(
    help="Large Concept Models: train, generate, evaluate, and what belongs to them",
    commands={
        "train": Command("lexalcm.cli.train", "train a model by a recipe"),
        "generate": Command("lexalcm.cli.generate", "continue texts or concepts with a model"),
        "evaluate": Command("lexalcm.cli.evaluate", "measure a model on a dataset, beside simple baselines"),
        "fit-normalizer": Command("lexalcm.cli.fit_normalizer", "fit center and scale to a dataset's embeddings"),
        "demo-data": Command("lexalcm.cli.demo_data", "write a small bilingual corpus to try things on"),
        "import": Command("lexalcm.cli.import_model", "write a card for weights of Meta's trainer, LexaLCM or lexalcm"),
        "export": Command("lexalcm.cli.export", "write a model as safetensors, for Meta's trainer or as LexaLCM-Pre1"),
        "bootstrap": Command("lexalcm.cli.bootstrap", "write a fresh model with its card, ready to train"),
        "prepare": Command("lexalcm.cli.prepare", "make a dataset of raw text: sentences, concepts, parquet"),
        "special-concepts": Command("lexalcm.cli.special_concepts", "encode what stands for start and end of text"),
        "verify": Command("lexalcm.cli.verify", "check every row of a dataset, and say what is wrong with it"),
        "convert": Command("lexalcm.cli.convert", "turn Meta's layout into LexaLCM's, rows checked and columns kept"),
        "visualize": Command("lexalcm.cli.visualize", "show a dataset in one HTML file, or two side by side"),
        "assets": Command("lexalcm.cli.assets", "list and show cards of every kind"),
        "quickstart": Command("lexalcm.cli.quickstart", "make demo data, train on it, and show what was learned"),
        "doctor": Command("lexalcm.cli.doctor", "look over this installation and machine, and say what mends it"),
    },
)
