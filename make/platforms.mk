.PHONY: check-platforms
check-platforms: $(READY) ## types as Windows and macOS have them: no call that only Linux knows
	@$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	@$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
