"""Figures and one self-contained HTML page; reads nothing but `ReportData`."""
