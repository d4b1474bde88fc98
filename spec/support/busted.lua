-- Run busted in the interpreter that runs this file. The busted command starts
-- with whatever "lua" is, and its --lua option loses the quotes of arguments.

-- Busted has each file load its modules anew. A second luv in the process would crash it sooner or
-- later; one that is there before stays.
pcall(require, "luv")

require "busted.runner"({ standalone = false })
