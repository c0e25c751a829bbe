//go:build race

package main

// The race detector keeps a history of all memory, and takes its time.
const (
	budgetRows  = 256
	budgetFixed = 512 << 20
)
