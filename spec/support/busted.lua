-- Run busted in the interpreter that runs this file. The busted command starts
-- with whatever "lua" is, and its --lua option loses the quotes of arguments.
require "busted.runner"({ standalone = false })
