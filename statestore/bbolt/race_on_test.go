//go:build race

package bbolt_test

// stride thins out the campaigns that are about damage, not about concurrency:
// the race detector makes them ten times as long and no more telling.
const stride = 8
