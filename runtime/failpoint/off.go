//go:build !failpoints

package failpoint

// Enabled says whether the program was built with failpoints.
const Enabled = false

// Hit does nothing.
func Hit(Point) error { return nil }
