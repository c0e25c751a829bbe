//go:build mutants && !race

package simulation_test

const seeds = 3_000 // each planted fault is found within a thousand
