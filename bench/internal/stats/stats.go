// Package stats says what several rounds of a measurement amount to.
package stats

import (
	"errors"
	"math"
	"slices"
)

// Spread is a median with the least and the greatest value.
type Spread struct{ Median, Least, Most float64 }

// Of returns the spread of some values; of none it is NaN.
func Of(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	all := slices.Sorted(slices.Values(values))
	n := len(all)
	return Spread{(all[(n-1)/2] + all[n/2]) / 2, all[0], all[n-1]}
}

// Paired returns the spread of a[i]/b[i]: a ratio is taken within a round, because
// what slows a machine down slows both.
func Paired(a, b []float64) Spread {
	ratios := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return Of(ratios)
}

// Apart reports whether two spreads have no value in common.
func (s Spread) Apart(o Spread) bool { return s.Least > o.Most || s.Most < o.Least }

// Known is false for the spread of nothing.
func (s Spread) Known() bool { return !math.IsNaN(s.Median) }

// Slope fits log(y) = slope·log(x) + c: 1 is linear growth, 2 quadratic.
func Slope(x, y []float64) (float64, error) {
	if len(x) != len(y) || len(x) < 2 {
		return 0, errors.New("a slope needs two points or more")
	}
	var sx, sy, sxx, sxy float64
	for i := range x {
		if x[i] <= 0 || y[i] <= 0 {
			return 0, errors.New("a slope of logarithms needs positive values")
		}
		lx, ly := math.Log(x[i]), math.Log(y[i])
		sx, sy, sxx, sxy = sx+lx, sy+ly, sxx+lx*lx, sxy+lx*ly
	}
	n := float64(len(x))
	d := n*sxx - sx*sx
	if d < 1e-12 {
		return 0, errors.New("a slope needs two different points")
	}
	return (n*sxy - sx*sy) / d, nil
}
