"""The one thing pyproject.toml cannot say: the top-level cards/ and recipes/ ship inside the package."""

from setuptools import find_packages, setup

SHIPPED = {"lexalcm._shipped.cards": "cards", "lexalcm._shipped.recipes": "recipes"}

setup(
    packages=[*find_packages(include=["lexalcm", "lexalcm.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={
        "lexalcm.pipelines": ["*.yaml"],
        "lexalcm.pipelines.report": ["*.jinja"],
        **{name: ["**/*"] for name in SHIPPED},
    },
    include_package_data=False,
)
