from zsrbook.bench import main

main()
