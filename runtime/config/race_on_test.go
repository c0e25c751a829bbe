//go:build race

package config_test

// slack stretches time limits: the race detector makes everything several times slower.
const slack = 10
