from tests.coslow.label_studio import main

main()
