//go:build race

package simulation_test

const seeds = 200 // the race detector makes everything several times slower
