#!/bin/sh -e
exec helper
