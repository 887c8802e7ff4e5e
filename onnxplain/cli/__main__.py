from onnxplain.cli import main

main()
