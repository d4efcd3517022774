from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md")
TEST = ["pytest", "freezegun"]
# Django 6.0 has the framework in it, and needs Python 3.12
DJANGO = ["django>=4.2", "django-tasks>=0.12; python_version<'3.12'"]

setup(
    name="dbbasic-queue",
    version="2.0.0",
    description="A job queue that is one TSV file",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    author="The dbbasic-queue authors",
    license="MIT",
    project_urls={
        "Full Specification": "http://dbbasic.com/queue-spec",
        "DBBasic Modules": "http://dbbasic.com/",
        "GitHub Repository": "https://github.com/dbbasic/dbbasic-queue",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["dbbasic_queue", "dbbasic_queue.*"]),
    package_data={"dbbasic_queue": ["py.typed", "web/static/*"]},
    install_requires=["filelock>=3.30"],
    extras_require={
        "test": TEST,
        "celery": ["celery[redis]>=5.3"],
        "cron": ["cronsim>=2.7", "tzdata"],
        "crypto": ["cryptography>=42"],
        "django": DJANGO,
        "metrics": ["prometheus_client"],
        "web": ["flask>=2.2"],
        "dev": [
            *TEST,
            "hypothesis",
            "ruff",
            "mypy",
            "coverage>=7.17",
            "celery[redis]>=5.3",
            *DJANGO,
            "flask>=2.2",
            "fastapi",
            "uvicorn",
            "hypercorn",
            "gunicorn",
            "a2wsgi",
            "httpx2",  # for starlette.testclient
            "selenium",
            "pillow",
            "prometheus_client",
            "opentelemetry-sdk",
            "duckdb",
            "pandas",
            "polars",
            "visidata",
            "dbbasic-email",
            "cronsim>=2.7",
            "tzdata",
            "cryptography>=42",
            "dbbasic-cli",
            # dbbasic-cli 1.0.0 needs pkg_resources, gone in 81; before 70.1 it builds no wheel
            "setuptools>=70.1,<81",
        ],
    },
    entry_points={"console_scripts": ["dbbasic-queue=dbbasic_queue.cli:main"]},
    zip_safe=False,
)
