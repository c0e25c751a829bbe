// Package node starts the actor tree, runs pipelines in it and stops it. It is the
// only package that spawns actors from outside; cmd and bench call nothing deeper.
package node
