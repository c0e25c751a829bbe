// Package storetest is the conformance suite of state stores, and a correct one
// in memory: the model that the suite compares with, and a fake for tests of the
// store's callers.
//
//	func TestStore(t *testing.T) { storetest.Run(t, factory) }
//
// What is special about one store (who may open it twice, what damage it
// notices) is tested beside it. A failing random test names its seed; RB_SEED=N
// runs that one alone.
package storetest
