package main

import "runtime/debug"

func memoryLimit() int64     { return debug.SetMemoryLimit(-1) }
func setMemoryLimit(n int64) { debug.SetMemoryLimit(n) }
