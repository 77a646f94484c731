from zoo.demo import app

app().launch()
