// Package actortest helps to test one actor of the tree on its own, in a synctest
// bubble: a Probe stands for each of its neighbours, and one of them is its parent.
//
// A probe hands what it is told to the test and decides nothing. A child that panics is
// stopped, as the run actor would, and its parent is told so with Panicked. Whatever a
// test sends moves as in production; the register of the attempt owns what is left.
package actortest
