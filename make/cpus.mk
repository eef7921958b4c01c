# Other machines, on this one: numbers of threads, instruction sets, MKL's and oneDNN's code paths. The tests are
# those with exact equalities; `make test-cpus CPU_TESTS=` runs all of them in each environment (an hour).

CPU_TESTS ?= tests/test_blending.py tests/test_generate.py tests/test_manifold_ranking.py tests/test_masks_guided.py \
    tests/test_masks_grabcut.py tests/test_masks.py tests/test_mixing.py tests/test_bank_descriptors.py \
    tests/test_expand_plan.py tests/test_processors.py tests/test_saliency_contract.py tests/test_saliency_spectral.py \
    tests/test_selection.py

CPU_ENVIRONMENTS := \
    OMP_NUM_THREADS=1 \
    OMP_NUM_THREADS=2 \
    OMP_NUM_THREADS=3 \
    ATEN_CPU_CAPABILITY=default,OMP_NUM_THREADS=1 \
    ATEN_CPU_CAPABILITY=avx2 \
    MKL_CBWR=COMPATIBLE \
    MKL_CBWR=AVX2 \
    ATEN_CPU_CAPABILITY=avx2,ONEDNN_MAX_CPU_ISA=AVX2,MKL_CBWR=COMPATIBLE
comma := ,

test-cpus: $(READY) ## run the tests that demand equal bytes as other processors would (about 15 minutes)
	@set -e; for environment in $(CPU_ENVIRONMENTS); do \
	    echo "== $$environment"; \
	    env $$(echo $$environment | tr '$(comma)' ' ') $(BIN)/pytest -q $(SIDE_BY_SIDE) $(CPU_TESTS); \
	done

.PHONY: test-cpus
