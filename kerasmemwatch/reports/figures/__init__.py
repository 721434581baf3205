"""One set of figures for the notebook, the HTML report and TensorBoard: plotly's, as dicts made without plotly."""
