//go:build !race

package config_test

// slack stretches time limits where the race detector runs.
const slack = 1
