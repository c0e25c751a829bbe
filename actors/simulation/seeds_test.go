//go:build !race && !mutants

package simulation_test

const seeds = 10_000
