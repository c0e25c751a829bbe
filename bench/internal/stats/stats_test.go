package stats

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpreads(t *testing.T) {
	require.Equal(t, Spread{3, 1, 9}, Of([]float64{9, 3, 1}))
	require.Equal(t, Spread{2.5, 1, 9}, Of([]float64{9, 3, 1, 2}))
	require.Equal(t, Spread{7, 7, 7}, Of([]float64{7}))
	require.False(t, Of(nil).Known())
	values := []float64{3, 1, 2}
	Of(values)
	require.Equal(t, []float64{3, 1, 2}, values)
}

// A machine that is three times as slow in one round changes no ratio of that round.
func TestRatiosAreTakenWithinARound(t *testing.T) {
	require.Equal(t, Spread{2, 2, 2}, Paired([]float64{2, 6, 4}, []float64{1, 3, 2}))
	require.Equal(t, Spread{2, 1, 3}, Paired([]float64{3, 4, 20}, []float64{1, 4, 10}))
	require.Equal(t, Spread{2, 2, 2}, Paired([]float64{2, 6}, []float64{1, 0}))
	require.False(t, Paired(nil, nil).Known())
}

func TestApart(t *testing.T) {
	require.True(t, Spread{2, 1, 3}.Apart(Spread{5, 4, 6}))
	require.True(t, Spread{5, 4, 6}.Apart(Spread{2, 1, 3}))
	require.False(t, Spread{2, 1, 4}.Apart(Spread{5, 4, 6}))
}

func TestSlopes(t *testing.T) {
	x := []float64{1, 10, 100, 1000}
	for power, name := range map[float64]string{0: "constant", 1: "linear", 2: "quadratic", 0.5: "root"} {
		y := make([]float64, len(x))
		for i := range x {
			y[i] = 3 * math.Pow(x[i], power)
		}
		got, err := Slope(x, y)
		require.NoError(t, err, name)
		require.InDelta(t, power, got, 1e-9, name)
	}
	for _, bad := range [][2][]float64{{{1}, {1}}, {{1, 2}, {1}}, {{1, 1}, {1, 2}}, {{0, 1}, {1, 1}}, {{1, 2}, {0, 1}}} {
		_, err := Slope(bad[0], bad[1])
		require.Error(t, err, bad)
	}
}
