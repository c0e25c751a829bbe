//go:build !race

package bbolt_test

const stride = 1
