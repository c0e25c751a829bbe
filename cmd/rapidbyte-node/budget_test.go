//go:build !race

package main

// What TestMemoryStaysInsideItsBudget moves, and what the process may take beside
// max_memory.
const (
	budgetRows  = 2048 // of 1 MiB: 2 GiB
	budgetFixed = 128 << 20
)
