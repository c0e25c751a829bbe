//go:build !race

package simulation_test

const seeds = 10_000
